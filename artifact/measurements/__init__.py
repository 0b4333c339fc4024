"""What is measured: for each notebook a room that says which attacks its tables and figures are made of, before any is made."""
