/**
 * Presses of buttons whose place, or focus, another button takes at once (Contribute and Stop): one press does one thing, whether a key
 * is held down or the mouse clicks twice.
 */

export function onPress(button: HTMLElement, act: (event: MouseEvent) => void): void {
  button.addEventListener("keydown", (event) => {
    // A key that is held would press this button because it pressed the one before.
    if (event.repeat && event.key === "Enter") {
      event.preventDefault();
    }
  });
  button.addEventListener("click", (event) => {
    // The second click of a double click would press what the first one has put here.
    if (event.detail <= 1) {
      act(event);
    }
  });
}
