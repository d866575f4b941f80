"""Swagger UI, which shows the API's description: its files, from the package that brings them."""

from importlib import metadata

from quart import Blueprint

# Found, not imported: the module itself is an extension of Flask.
_FILES = metadata.distribution("flask-swagger-ui").locate_file("flask_swagger_ui/dist")

blueprint = Blueprint(
    "swagger", __name__, static_folder=str(_FILES), static_url_path="/docs/swagger-ui"
)
