"""LeWorldModel (LeWM): a world model of pixels and actions, kept from collapse by SIGReg."""
