"""What LeWM is compared with, on the same networks, data and recipe: `arms.ARMS` lists them."""
