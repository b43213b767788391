"""The parts of the speech studies: corpora, features, output units, batches, and a small CTC and transducer network."""
