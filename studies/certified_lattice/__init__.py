"""The parts of the certified-lattice picture: a problem like a trained model's, the library's rounds, the drawing."""
