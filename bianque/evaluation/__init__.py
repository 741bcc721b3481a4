"""How well replies match what doctors wrote, and whether the right ones are questions."""
