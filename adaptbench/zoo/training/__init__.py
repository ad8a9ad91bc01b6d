"""How weights are made: the loop, its phases and losses."""
