"""The mathematics of channel pruning: tensors in, tensors out; knows neither networks nor flags."""
