# Astro's project shape: requirements.txt and packages.txt are installed by the base image's build triggers.
FROM astrocrpublic.azurecr.io/runtime:3.3-2
