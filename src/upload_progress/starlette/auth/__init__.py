"""Authentication of requests: the application's ``authenticate``, origins and tickets."""
