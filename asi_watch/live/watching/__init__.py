"""How files are noticed: events, proof that they arrive, and scans that find what they missed."""
