"""One module for each group of routes; each function serves one route of `queryd.http.routes`."""
