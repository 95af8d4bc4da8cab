"""Diffusion model predictive control (D-MPC) on MuJoCo."""
