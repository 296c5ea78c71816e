"""What banks' standards ask for: account numbers, the QR code of a transfer, files of transfers."""
