// Before the first paint, so that nothing flashes: the colours that were chosen, if any were.
try {
  const chosen = localStorage.getItem("langue.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // a browser that keeps nothing shows the colours of the system
}
