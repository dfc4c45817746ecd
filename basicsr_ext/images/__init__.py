"""What image files are: headers, decoding, pictures, packed crops."""
