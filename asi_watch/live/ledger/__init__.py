"""The ledger: its file and rows, what it owes, and how it is restored when damaged or lost."""
