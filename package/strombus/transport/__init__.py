"""How the members of a gang talk to one another, whatever engine started them."""
