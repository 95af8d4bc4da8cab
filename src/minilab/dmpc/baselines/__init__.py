"""The systems that the talk compares with D-MPC, trained on the same windows with the same networks and recipe."""
