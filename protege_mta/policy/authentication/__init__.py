"""Checks of who a message is from: SPF, DKIM and DMARC."""
