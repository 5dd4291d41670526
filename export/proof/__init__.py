"""What a bundle proves about itself: certificate, golden pictures, report."""
