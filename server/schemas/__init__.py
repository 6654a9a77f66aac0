"""The JSON of the API: requests and responses, a file for each subject."""
