"""What every method needs and no method owns. Import the modules, not this package."""
