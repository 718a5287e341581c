/* What the running application says about its own update. */
#ifndef ESP32C3_OTA_H
#define ESP32C3_OTA_H

/* This application works: an update that waits for this word stays. Nothing else is changed, and
 * without the word the bootloader goes back to the application before at the next start. */
void ota_confirm(void);

#endif
