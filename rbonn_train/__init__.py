"""Training of RBONN networks, and the references that their hardware is compared with."""
