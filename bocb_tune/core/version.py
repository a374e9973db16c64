"""The release this is: known also where the package runs from its sources and is not installed."""

VERSION = "0.1.0"
