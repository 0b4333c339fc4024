"""The theory's numbers: densities in closed form, trials that check them, and features of small trained networks."""
