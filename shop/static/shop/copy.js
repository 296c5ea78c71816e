// Buttons with data-copy put that text on the clipboard, and say so. Without a clipboard (plain HTTP) the text
// before the button is selected instead.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    const words = button.textContent;
    button.textContent = "✓";
    setTimeout(() => { button.textContent = words; }, 1500);
  } catch {
    window.getSelection().selectAllChildren(button.previousElementSibling);
  }
});
