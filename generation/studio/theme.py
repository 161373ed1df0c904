"""How the page looks: quiet colours of land and water, system fonts, nothing from elsewhere."""

import gradio as gr

from generation.studio.drawing import paints

FONTS = ["ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Consolas", "monospace"]

HEAD = (
    '<meta name="color-scheme" content="light dark">'
    '<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,'
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E"
    "%3Ccircle cx='16' cy='16' r='15' fill='%2389b9d0'/%3E"
    "%3Cpath d='M4 22l8-11 5 6 4-5 7 10a15 15 0 0 1-24 0z' fill='%230f766e'/%3E%3C/svg%3E\">"
    "<style>@media (max-width: 640px) {"  # not in the sheet: Gradio keeps its media rules inside
    " .gradio-container > .main { padding: 8px 8px 84px !important; } }</style>"
)

_SWATCHES = "".join(
    f'#ts-palette input[value="{name}"] {{ background-color: {colour} !important; }}\n'
    for name, colour in paints().items()
)

CSS = (
    _SWATCHES
    + """
.gradio-container { max-width: 1440px !important; margin: 0 auto !important; }
.ts-head { display: flex; align-items: center; gap: 12px; flex-wrap: wrap; padding: 4px 2px 0; }
.ts-head svg { width: 34px; height: 34px; flex: none; }
.ts-head h1 { font-size: 1.35rem; font-weight: 650; letter-spacing: -.01em; margin: 0; }
.ts-head p { margin: 0; color: var(--body-text-color-subdued); font-size: .92rem; flex: 1 1 260px; }
.ts-badge { background: #7c2d12; color: #fff; border-radius: 999px; padding: 2px 10px;
  font-size: .74rem; font-weight: 600; letter-spacing: .02em; white-space: nowrap; }
.ts-card { background: var(--background-fill-primary);
  border: 1px solid var(--border-color-primary); border-radius: 14px;
  padding: 16px !important; gap: 12px !important; }
.ts-card .form { background: transparent; border: 0; box-shadow: none; gap: 12px; }
.ts-card .block { overflow: visible; }
.ts-card label > span:first-child, .ts-card .block > .wrap + span { margin-bottom: 4px; }
.ts-row-end { align-items: flex-end; }
.ts-row-end > button { min-height: 42px; }
.ts-row-end .form { align-items: flex-end; }
.ts-row-end .block:has(input[type=checkbox]) { padding-bottom: 10px !important; }
.ts-title { font-size: .98rem; font-weight: 620; margin: 0; }
.ts-sub { font-size: .9rem; font-weight: 560; margin: 6px 0 0; }
.ts-sub + .ts-caption { margin: 2px 0 0; }
.ts-more { gap: 10px !important; }
.ts-card .label-wrap { text-align: left; padding: 4px 0; }
.ts-card .label-wrap .icon { flex: none; font-size: .7rem; }
.gradio-container :is(button, input, textarea, summary, [role=button]):focus-visible {
  outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
.gradio-container :is(input, textarea, .label-wrap):focus-visible { outline-offset: -2px; }

.ts-map { position: relative; aspect-ratio: 2 / 1; border-radius: 10px; overflow: hidden;
  cursor: crosshair; border: 1px solid var(--border-color-primary); background: #b0d0e3;
  touch-action: manipulation; user-select: none; }
.ts-map.ts-square { aspect-ratio: 1; }
.ts-map img { width: 100%; height: 100%; display: block; margin: 0; }
.ts-map:focus-visible { outline: 3px solid var(--color-accent); outline-offset: 2px; }
.ts-pin { position: absolute; width: 18px; height: 18px; margin: -9px 0 0 -9px; border-radius: 50%;
  border: 3px solid #fff; background: #c2410c; box-shadow: 0 0 0 1.5px #431407, 0 1px 5px #0007;
  pointer-events: none; }
.ts-unseen { visibility: hidden; }
.ts-outline { position: absolute; border: 2px solid #fff; box-shadow: 0 0 0 1.5px #431407,
  inset 0 0 0 1.5px #431407; background: #c2410c33; border-radius: 2px; pointer-events: none; }
.ts-chips { contain: inline-size; display: flex; gap: 8px; flex-wrap: wrap; }
.ts-chip { border: 1px solid var(--border-color-primary);
  background: var(--background-fill-secondary);
  color: var(--body-text-color); border-radius: 999px; padding: 5px 12px; font-size: .84rem;
  cursor: pointer; white-space: nowrap; min-height: 32px; }
.ts-chip:hover { border-color: var(--color-accent); }
#ts-palette .wrap { display: grid; grid-template-columns: repeat(auto-fill, minmax(88px, 1fr));
  gap: 6px; }
#ts-palette label { gap: 7px; padding: 4px 7px; font-size: .8rem; min-height: 32px; margin: 0;
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
#ts-palette label.selected { border-color: var(--color-accent);
  box-shadow: inset 0 0 0 1px var(--color-accent); }
#ts-palette label span { margin: 0; }
#ts-palette input { width: 15px; height: 15px; border-radius: 4px; border: 1px solid #0003;
  background-image: none !important; }
.ts-downloads { align-items: center; }
#ts-editor { border: 1px solid var(--border-color-primary) !important; border-radius: 10px;
  background: var(--background-fill-secondary); overflow: hidden !important; }
#ts-editor .image-container { background: transparent; }
/* the colour and the width of the brush have controls of their own, with names */
#ts-editor button:is([aria-label=Color], [aria-label="Brush Size"], [aria-label="Clear canvas"]),
#ts-editor .half-container.right { display: none; }
#ts-editor .toolbar-wrap { top: 4px; left: 10px; right: auto; width: auto; border: 0;
  background: transparent; }
#ts-editor .toolbar-wrap .half-container { flex-direction: row; padding: 0; }
.ts-caption, .ts-credit, .ts-facts { margin: 6px 0 0; font-size: .82rem;
  color: var(--body-text-color-subdued); line-height: 1.4; }
.ts-credit { font-size: .72rem; }
.ts-note { margin: 8px 0 0; font-size: .84rem; line-height: 1.4; padding: 7px 10px;
  border-radius: 8px; background: var(--background-fill-secondary);
  border-left: 3px solid #d97706; overflow-wrap: anywhere; }
.ts-wrong { border-left-color: #dc2626; }
.ts-sources { margin: 4px 0 0; padding-left: 24px; font-size: .82rem; line-height: 1.5; }
.ts-card-plausible { margin-top: 10px; font-size: .82rem; }
.ts-card-plausible summary { cursor: pointer; font-weight: 600; }
.ts-card-plausible table { width: 100%; border-collapse: collapse; margin-top: 4px; }
.ts-card-plausible th, .ts-card-plausible td { text-align: left; font-weight: 400;
  padding: 3px 8px 3px 0; border-top: 1px solid var(--border-color-primary);
  vertical-align: top; overflow-wrap: anywhere; }

.ts-stage figure, .ts-layout figure { margin: 0; min-width: 0; }
.ts-pair { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; }
.ts-frame { position: relative; aspect-ratio: 1; border-radius: 10px; overflow: hidden;
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.ts-frame img { width: 100%; height: 100%; display: block; object-fit: contain; margin: 0; }
.ts-layout .ts-frame img, .ts-pair figure:nth-child(2) .ts-frame img, .ts-map.ts-square img {
  image-rendering: pixelated; }
.ts-frame .ts-badge { position: absolute; left: 10px; bottom: 10px; box-shadow: 0 1px 4px #0006; }
.ts-empty { position: absolute; inset: 0; display: grid; place-items: center; text-align: center;
  padding: 16px; color: var(--body-text-color-subdued); font-size: .9rem; }
.ts-stage figcaption, .ts-layout figcaption { margin-top: 6px; font-size: .82rem;
  color: var(--body-text-color-subdued); }
.ts-live { box-shadow: 0 0 0 2px var(--color-accent); }
.ts-progress { height: 6px; border-radius: 3px; margin-top: 12px; overflow: hidden;
  background: var(--background-fill-secondary); }
.ts-progress span { display: block; height: 100%; background: var(--color-accent);
  transition: width .25s; }
.ts-status { margin: 6px 0 0; font-size: .88rem; }
.ts-prompt { margin: 10px 0 0; font-size: .95rem; overflow-wrap: anywhere; }
.ts-legend { list-style: none; margin: 8px 0 0; padding: 0; display: flex; flex-wrap: wrap;
  gap: 4px 12px; font-size: .8rem; }
.ts-legend li { display: inline-flex; align-items: center; gap: 5px; margin: 0; }
.ts-legend i { width: 12px; height: 12px; border-radius: 3px; border: 1px solid #0003; }
.ts-legend small { color: var(--body-text-color-subdued); }
.ts-strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(72px, 1fr)); gap: 8px; }
.ts-thumb { padding: 0; border: 2px solid transparent; border-radius: 9px; overflow: hidden;
  cursor: pointer; aspect-ratio: 1; background: var(--background-fill-secondary); }
.ts-thumb[aria-current] { border-color: var(--color-accent); }
.ts-thumb img { width: 100%; height: 100%; object-fit: cover; display: block; margin: 0; }

.ts-overlay { position: absolute; inset: 0; image-rendering: pixelated; }
.ts-scale { display: flex; align-items: center; gap: 8px; font-size: .8rem;
  font-variant-numeric: tabular-nums; }
.ts-scale i { flex: 1; height: 12px; border-radius: 3px; border: 1px solid #0003; }
.ts-hits { list-style: none; margin: 10px 0 0; padding: 0; display: grid; gap: 8px; }
.ts-hit { display: grid; grid-template-columns: 2rem 1fr auto; gap: 10px; align-items: start;
  margin: 0; padding: 10px 12px; border-radius: 10px; background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); }
.ts-hit > div { min-width: 0; }
.ts-hit p { margin: 0; overflow-wrap: anywhere; }
.ts-hit .ts-facts { margin-top: 4px; }
.ts-hit-title { font-size: .92rem; line-height: 1.35; }
.ts-hit-title b { font-weight: 560; }
.ts-rank { font-size: .9rem; color: var(--body-text-color-subdued); text-align: right; }
.ts-hit-end { display: grid; gap: 6px; white-space: nowrap; justify-items: end; }
.ts-score { font-size: .9rem; font-variant-numeric: tabular-nums; }
.ts-kind { border: 1px solid currentColor; border-radius: 999px; padding: 0 8px; font-size: .74rem;
  font-weight: 600; }
.ts-hit a { color: inherit; text-decoration: underline; }
.ts-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap; }

.ts-pano { aspect-ratio: 16 / 9; touch-action: none; }
.ts-pano:not([data-heading]) { aspect-ratio: 4 / 1; touch-action: auto; }
.ts-pano-view { position: absolute !important; inset: 0; visibility: hidden; }
.ts-pano-open .ts-pano-view { visibility: visible; }
.ts-pano .pnlm-container:focus-visible { outline: 3px solid var(--color-accent);
  outline-offset: -3px; }
.ts-pano .ts-badge { z-index: 3; }
.ts-pano-look { font-variant-numeric: tabular-nums; }
.ts-crops { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; margin-top: 6px; }
.ts-crops .ts-badge { font-size: .62rem; left: 6px; bottom: 6px; padding: 1px 7px; }
.ts-attention { contain: inline-size; }
.ts-attention .ts-frame { aspect-ratio: auto; }
.ts-attention .ts-frame img { height: auto; }
.ts-above { max-width: 260px; margin-top: 12px; }
.ts-strip.ts-wide { grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); }
.ts-wide .ts-thumb { aspect-ratio: 4 / 1; }
.ts-spot, .ts-look { position: absolute; pointer-events: none; }
.ts-spot { width: 20px; height: 20px; margin: -10px 0 0 -10px; border-radius: 50%;
  background: #fff; border: 2px solid #1e293b; color: #0f172a; font-size: .72rem; line-height: 16px;
  font-weight: 650; text-align: center; }
.ts-look { width: 0; height: 0; margin: -24px 0 0 -6px; border: 6px solid transparent;
  border-top: 0; border-bottom: 13px solid #1e293b; transform-origin: 6px 24px;
  filter: drop-shadow(0 0 1px #fff); }
#ts-around .ts-map { max-width: 420px; }
.ts-distances { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 14px; }
.ts-missing { color: #b91c1c; }
.dark .ts-missing { color: #fca5a5; }
.ts-views { list-style: none; margin: 0; padding: 0; display: grid; gap: 8px; }
.ts-views li { margin: 0; padding: 9px 10px; border-radius: 10px;
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.ts-view-head { display: grid; grid-template-columns: auto 96px 1fr auto; gap: 10px;
  align-items: center; font-size: .86rem; }
.ts-view-head img { width: 96px; height: 24px; border-radius: 4px; margin: 0; display: block; }
.ts-view-head span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.ts-view-fields { display: grid; grid-template-columns: repeat(3, 1fr); gap: 8px; margin-top: 8px; }
.ts-views label { display: grid; gap: 3px; font-size: .76rem; min-width: 0;
  color: var(--body-text-color-subdued); }

.ts-source-head { display: grid; grid-template-columns: auto 1fr auto; gap: 10px;
  align-items: center; font-size: .86rem; }
.ts-source-head span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.ts-source-fields { display: grid; grid-template-columns: 6rem 6rem 1fr; gap: 4px 12px;
  margin-top: 8px; align-items: end; }
.ts-views li input { width: 100%; min-width: 0; padding: 6px 8px; font-size: .86rem;
  border-radius: 7px; border: 1px solid var(--border-color-primary);
  background: var(--background-fill-primary); color: var(--body-text-color); }
.ts-source-fields .ts-caption { padding-bottom: 7px; }
.ts-own, [data-edited] .ts-kept { display: none; }
[data-edited] .ts-own { display: inline; }
.ts-found { display: grid; grid-template-columns: 116px 1fr; gap: 12px; align-items: start; }
.ts-found .ts-caption { margin: 0; }
.ts-found .ts-badge { font-size: .6rem; left: 5px; bottom: 5px; padding: 1px 6px; }
.ts-seen { aspect-ratio: auto; }
.ts-seen img { height: auto; }
.ts-seen .ts-badge { left: auto; right: 20px; bottom: auto; top: 14px; }
.ts-unheard { aspect-ratio: 4 / 1; min-height: 84px; }
.ts-player { width: 100%; margin-top: 12px; display: block; }
.ts-source { grid-template-columns: 1fr; }
.ts-tried { margin-top: 4px; font-size: .82rem; }
.ts-tried summary { cursor: pointer; color: var(--body-text-color-subdued); }
.ts-tried table { border-collapse: collapse; margin: 6px 0 0; font-variant-numeric: tabular-nums; }
.ts-tried :is(th, td) { text-align: right; padding: 2px 14px 2px 0; font-weight: 400; border: 0; }
.ts-tried th:first-child { text-align: left !important; white-space: nowrap; }
.ts-tried thead th { color: var(--body-text-color-subdued); }
.ts-tried .ts-best :is(th, td) { font-weight: 650; }
.ts-after { margin-top: 14px; }
.ts-strip.ts-sounds { grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); }
.ts-sounds .ts-thumb { aspect-ratio: 2 / 1; }
.ts-sounds .ts-thumb img { object-fit: fill; }

@media (max-width: 640px) {
  .ts-source-fields { grid-template-columns: 1fr 1fr; }
  .ts-source-fields .ts-caption { grid-column: 1 / -1; padding: 0; }
  .ts-pano[data-heading] { aspect-ratio: 4 / 3; }
  .ts-crops { grid-template-columns: 1fr 1fr; }
  .ts-views .ts-chip { min-height: 40px; }
  .ts-attention .ts-frame { overflow-x: auto; }
  .ts-attention .ts-frame img { width: 760px; max-width: none; }
  .ts-fours .wrap { display: grid; grid-template-columns: 1fr 1fr; }
  .ts-card { padding: 12px !important; }
  #ts-tabs .tab-container button { padding: 0 9px; }
  .ts-head { gap: 8px; }
  .ts-head p { flex-basis: 100%; order: 3; }
  .ts-head .ts-badge { margin-left: auto; }
  .ts-chips { flex-wrap: nowrap; overflow-x: auto; scrollbar-width: none; margin: 0 -12px;
    padding: 2px 12px; }
  .ts-chip { min-height: 40px; }
  .ts-legend { gap: 4px 10px; }
  .ts-legend small { display: none; }
  .ts-two { flex-wrap: nowrap !important; }
  .ts-pair { grid-template-columns: 1fr; }
  .ts-stage[aria-busy] figure:nth-child(2) { display: none; }  /* the steps are told in its place */
  #ts-choice .wrap { display: grid; grid-template-columns: 1fr 1fr; }
  .ts-pair .ts-frame:not(.ts-live):has(.ts-empty) { aspect-ratio: 4 / 1; }
  .ts-downloads button { min-height: 40px; padding: 0 6px; }
  #ts-editor { height: 330px !important; }
  /* always within reach of the thumb */
  .ts-actions { position: fixed; inset: auto 0 0; z-index: 50;
    flex-wrap: nowrap;
    padding: 10px 16px calc(10px + env(safe-area-inset-bottom));
    background: var(--background-fill-primary); border-top: 1px solid var(--border-color-primary);
    box-shadow: 0 -4px 16px #0001; }
}
@media (prefers-reduced-motion: reduce) { .ts-progress span { transition: none; } }
.dark .ts-map:not(.ts-square) img { filter: brightness(.86); }
.dark input[type=range] { --neutral-200: var(--neutral-700); }
"""
)


def scroll_js(press: str, result: str) -> str:
    """Bring a result into sight where it lies below what was pressed, as on a phone.

    Args:
        press: The button in the page.
        result: What is shown, once its frame has grown.
    """
    return f"""
document.addEventListener('click', (event) => {{
  if (window.innerWidth >= 900 || !event.target.closest('#{press}')) return;
  const result = document.getElementById('{result}');
  setTimeout(() => result.scrollIntoView({{behavior: 'smooth', block: 'start'}}), 500);
}});
"""


MARK = (
    '<svg viewBox="0 0 32 32" aria-hidden="true"><circle cx="16" cy="16" r="15" fill="#89b9d0"/>'
    '<path d="M4 22l8-11 5 6 4-5 7 10a15 15 0 0 1-24 0z" fill="#0f766e"/>'
    '<path d="M12 11l2.6 3-2 1.4-2.5-1.2z" fill="#f1f5f9"/></svg>'
)


def studio_theme() -> gr.themes.Base:
    """Give the theme: Gradio's plain one in our colours and the system's fonts."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=FONTS,
        font_mono=MONO,
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color_dark="*neutral_300",
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        block_border_width="0px",
        block_padding="0px",
        block_shadow="none",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        input_border_width="1px",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_900",
        layout_gap="12px",
        form_gap_width="0px",
    )


def header_html() -> str:
    """Give the page's head: what this is, and that what it shows is synthetic."""
    return (
        f'<header class="ts-head">{MARK}<h1>Terrascape</h1>'
        "<p>Draws what a place may look like, from above and all around, and finds and makes what "
        "it may sound like, on this machine.</p>"
        '<span class="ts-badge" title="Every image and sound here is made by a model">'
        "all synthetic</span></header>"
    )
