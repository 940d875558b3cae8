"""Wire types: the requests and answers of the HTTP interfaces. No torch, no HTTP library; engine-free."""
