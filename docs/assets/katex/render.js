// arithmatex marks the formulas: \(...\) in a line, \[...\] on its own.
for (const element of document.querySelectorAll(".arithmatex")) {
  const tex = element.textContent.trim();
  // LaTeX reads \sigma_\min, KaTeX wants \sigma_{\min}.
  const body = tex.slice(2, -2).replace(/([_^])(\\(?:min|max))\b/g, "$1{$2}");
  katex.render(body, element, { displayMode: tex.startsWith("\\["), throwOnError: false });
}
