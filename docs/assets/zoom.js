// A picture of a page opens at its full size by a click or the Enter key, and closes by either.
function zoomed(image) {
  const dialog = document.createElement("dialog");
  dialog.className = "md-typeset zoom";
  dialog.append(image.cloneNode());
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

for (const image of document.querySelectorAll("article img")) {
  const link = image.closest("a");
  if (link && link.href !== image.src) continue; // it leads elsewhere
  const opener = link || image;
  if (!link) Object.assign(image, { tabIndex: 0, role: "button" });
  image.classList.add("zoomable");
  opener.addEventListener("click", (event) => { event.preventDefault(); zoomed(image); });
  opener.addEventListener("keydown", (event) => {
    if (!link && event.key === "Enter") zoomed(image);
  });
}
