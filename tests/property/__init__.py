from .. import patience as patience
