"""What each op should compute, in float64, from its definition and on any device.

Where an op promises an intermediate result in the type of its input (a norm that is then
quantised), the reference rounds there too; everything else is exact to float64.
"""
