"""Values and ports that everybody shares; pure, and imports nothing of the rest."""
