"""Settings of the instrument in an image file or beside it: one module for each maker."""
