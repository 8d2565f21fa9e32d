"""Messages printed as Objective-C: the same graphs without Python, as a Swift package."""
