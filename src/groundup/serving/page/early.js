"use strict";
// Runs before the page is painted, so that a chosen colour scheme or language does not flash. Nothing else belongs here.
{
  const stored = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
  const theme = stored("groundup.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  const language = stored("groundup.language") || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
}
