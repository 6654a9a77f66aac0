// Opens this server's own description in Swagger UI. A file of its own, so that /docs needs no inline script.
window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
