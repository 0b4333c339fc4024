"""Computing: training and measuring what receipts keep. Needs torch, draws nothing."""
