"""An output in another form: files, WebDataset shards or one parquet, with the same pictures to the byte."""
