"""Ways of making pictures, behind one interface."""
