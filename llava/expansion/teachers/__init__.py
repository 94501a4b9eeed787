"""Who answers a request: `offline` derives answers from the text it is shown, `hosted` asks an endpoint."""
