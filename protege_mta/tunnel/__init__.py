"""Tunnels between a relay server and its agents' gateways: sessions over WebSocket, in both roles."""
