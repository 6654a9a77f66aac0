// Opens this server's own description in Swagger UI. A file of its own, so that /docs needs no inline script.

const folder = new URL(".", location.href); // behind a proxy it may have a path prefix, which the description does not know

const dark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followScheme);
followScheme();

window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0, // the schemas stay folded
  displayRequestDuration: true,
  validatorUrl: null,
  requestInterceptor(request) {
    if (request.loadSpec) return request;
    const { pathname, search } = new URL(request.url, folder);
    request.url = new URL(pathname.slice(1) + search, folder).href;
    return request;
  },
});
