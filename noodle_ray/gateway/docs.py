"""/docs: the interactive documentation, from files on this machine alone."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from swagger_ui_bundle import swagger_ui_path

# Only these: the package's other pages and maps are for its developers, and one of them shows a stranger's API.
_FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
}

# The addresses are relative, so that the page works below any prefix.
_PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>noodle-ray: the HTTP interface</title>
    <link rel="stylesheet" href="docs/swagger-ui.css">
    <link rel="icon" type="image/png" href="docs/favicon-32x32.png">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="docs/swagger-ui-bundle.js"></script>
    <script src="docs/start.js"></script>
  </body>
</html>
"""

# The bundled Swagger UI reads OpenAPI 3.0 and refuses 3.1 by its number; what differs it leaves out or shows well.
_START = """// Put together by hand, because the page's own address may hold credentials, and fetch refuses such a base.
fetch(location.origin + location.pathname.replace(/docs$/, "openapi.json"))
  .then((answer) => answer.json())
  .then((spec) => SwaggerUIBundle({
    spec: {...spec, openapi: "3.0.3"},
    dom_id: "#swagger-ui",
    deepLinking: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
  }));
"""


def add_docs(app: FastAPI) -> None:
    """Adds the page, its script and Swagger UI's files. They are no part of the interface that they describe."""
    app.add_route("/docs", _page, include_in_schema=False)
    app.add_route("/docs/start.js", _start, include_in_schema=False)
    app.add_route("/docs/{file}", _file, include_in_schema=False)


async def _page(request: Request) -> Response:
    return HTMLResponse(_PAGE, headers=_HEADERS)


async def _start(request: Request) -> Response:
    return Response(_START, media_type="text/javascript", headers=_HEADERS)


async def _file(request: Request) -> Response:
    name = request.path_params["file"]
    if name not in _FILES:
        raise HTTPException(404)
    headers = {**_HEADERS, "Cache-Control": "private, max-age=3600"}
    return FileResponse(str(swagger_ui_path / name), media_type=_FILES[name], headers=headers)
