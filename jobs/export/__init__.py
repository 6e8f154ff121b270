"""An output or a parquet in another form: files, WebDataset shards or one parquet, the same to the byte."""
