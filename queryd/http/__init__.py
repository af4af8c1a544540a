"""HTTP face of queryd: routes, problem documents, access, metrics and the OpenAPI that describes them."""
