"""Drawing: tables and figures from receipts alone. Needs pandas and matplotlib, never torch, so that drawing starts at once."""
