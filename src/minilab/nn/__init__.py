"""Network parts that several methods share, each with a test that pins its mathematics."""
