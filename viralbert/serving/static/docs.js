// Swagger UI, served by the service itself: it reads the service's description and asks nobody else.

window.ui = SwaggerUIBundle({
  dom_id: "#api",
  url: "openapi.json",
  validatorUrl: null, // else the description of a service with a public name goes to a stranger's
  deepLinking: true,
  queryConfigEnabled: false, // no link may make it read another description
  supportedSubmitMethods: ["get", "post"],
});
